"""What may happen to a task and who may make it happen: states, claims, attempts, receipts, confirmation.

Each function works inside the transaction it is given and writes its own event. Nothing here knows HTTP.
"""
