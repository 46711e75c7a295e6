"""The data map: which personal data lies where, whose it is, on which basis, and how it ends."""
