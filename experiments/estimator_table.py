"""The table command, as `pg table`; `--help` lists its flags."""

from pg.commands import table

if __name__ == "__main__":
    raise SystemExit(table.main())
