"""Finding personal data that the data map does not name: from sampled values, to what a column seems to hold."""
