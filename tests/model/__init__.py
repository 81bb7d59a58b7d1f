"""The log library against a model of it: random programs of operations, reopenings, crashes and faults."""
