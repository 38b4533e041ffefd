"""The compare command, as `pg compare`; `--help` lists its flags."""

from pg.commands import compare

if __name__ == "__main__":
    raise SystemExit(compare.main())
