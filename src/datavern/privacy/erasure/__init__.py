"""The erasure of people, store by store, to its end: after a crash, after a hold, after a restore."""
