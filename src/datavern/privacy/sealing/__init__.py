"""The sealing of what is there already, and the rotation of the keys that it is sealed under."""
