"""`python -m preceptor`: the same commands, as Accelerate and other launchers start them."""

from preceptor.cli.app import main

if __name__ == "__main__":
    main()
