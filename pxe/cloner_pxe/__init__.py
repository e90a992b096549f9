"""Netboot: DHCP, TFTP, boot scripts and the pure boot decision. Knows no database."""
