"""python -m src.launch; what it does is in command.py."""

import sys

if __name__ == "__main__":
    try:
        from src.launch.command import main
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error.name} is not installed; run: pip install -r requirements.txt")
    sys.exit(main(sys.argv[1:]))
