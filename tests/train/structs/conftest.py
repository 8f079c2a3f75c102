import sys
from pathlib import Path

# The contract is imported by the tests beside it, which importlib mode does not put on the path.
sys.path.insert(0, str(Path(__file__).parent))
