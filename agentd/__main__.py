"""`python -m agentd` is `agentd`."""

from agentd.daemon import main

if __name__ == "__main__":
    main()
