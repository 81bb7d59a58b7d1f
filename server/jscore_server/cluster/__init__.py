"""Servers of one cluster: routes (core messages and interest, gossip) and replication links (Raft)."""
