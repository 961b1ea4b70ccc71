import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # for page_reader.py, which is no test
