"""Owns the import path of the toy work: a spawned process must find it by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
