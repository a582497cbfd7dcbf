"""`python -m emergence` is `emergence`."""

from .cli.main import main

if __name__ == "__main__":
    main()
