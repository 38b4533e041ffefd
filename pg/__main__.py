"""`python -m pg` is the console command `pg`."""

from pg.commands.main import main

if __name__ == "__main__":
    raise SystemExit(main())
