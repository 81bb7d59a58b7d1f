"""What operators and their tools read: `http` speaks, `pages` finds the page, `query` reads what was asked of it.

Each page is a module named as its path: a function of the `Monitor` and of what was asked. The same functions answer
the requests of the system account (`jscore_server.system`).
"""
