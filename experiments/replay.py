"""The replay command, as `pg replay`; `--help` lists its flags."""

from pg.commands import replay

if __name__ == "__main__":
    raise SystemExit(replay.main())
