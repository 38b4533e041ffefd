"""The tune command, as `pg tune`; `--help` lists its flags."""

from pg.commands import tune

if __name__ == "__main__":
    raise SystemExit(tune.main())
