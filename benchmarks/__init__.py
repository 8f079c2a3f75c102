"""What measures the project: chaos, peers, studies, the speed of the core and of the engine."""
