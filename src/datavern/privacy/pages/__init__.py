"""Pages for people: what is said on them, and how that looks on the web and on paper."""
