import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # fake_run, which the tests of report use as well
