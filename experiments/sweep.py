"""The sweep command, as `pg sweep`; `--help` lists its flags."""

from pg.commands import sweep

if __name__ == "__main__":
    raise SystemExit(sweep.main())
