"""One connection's rare verbs, without I/O: INFO, CONNECT. The hot verbs are in csrc/wire."""
