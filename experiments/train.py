"""The train command, as `pg train`; `--help` lists its flags."""

from pg.commands import train

if __name__ == "__main__":
    raise SystemExit(train.main())
