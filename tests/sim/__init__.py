"""Deterministic simulation of Raft clusters: one seed, one history. See simulator.py."""
