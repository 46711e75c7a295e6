"""The record of processing activities (GDPR Art. 30(1)): what is in it, and its page."""
