"""What people may ask for, from receipt to answer (GDPR Arts. 15-21)."""
