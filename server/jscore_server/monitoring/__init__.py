"""What operators and their tools read over HTTP: `http` speaks, `query` reads what was asked, `endpoints` answers."""
