"""The system account: what servers and operators ask of a server (`services`) and what it tells by itself (`events`).

Requests and events are ordinary messages of that account, so they reach every server of a cluster over the routes and
nobody but the account's own users. Source: monitoring.md sections 3 and 4.
"""

from jscore_server.system.account import System

__all__ = ["System"]
