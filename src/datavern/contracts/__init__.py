"""The vocabulary that everyone shares. It imports nothing of Datavern's own."""
