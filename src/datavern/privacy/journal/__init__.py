"""What is asked for people, written before anything is done: the journal, and its values."""
