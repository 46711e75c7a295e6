"""One folder per engine; the same file name does the same job in each."""
