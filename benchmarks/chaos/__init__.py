"""What the server withstands: it is flooded, starved, killed, drained and fed with nonsense, with figures."""
