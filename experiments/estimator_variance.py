"""The variance command, as `pg variance`; `--help` lists its flags."""

from pg.commands import variance

if __name__ == "__main__":
    raise SystemExit(variance.main())
