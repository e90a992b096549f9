"""The lab: virtual machines, their network namespace and their golden trees, for tests and the demo."""
