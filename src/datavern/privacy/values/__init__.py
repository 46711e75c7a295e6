"""Plain values that need nothing else of privacy: periods and deadlines, names, and what is made up in place of one."""
