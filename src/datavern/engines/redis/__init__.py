"""Redis and Valkey, on a multiplexing connection of Datavern's own; redis-py for everything else."""
