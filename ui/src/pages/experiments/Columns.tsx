// Chooses which metrics, parameters and tags are columns.
import { useState } from "react";
import { Dialog } from "../../parts/dialog";
import { t } from "../../strings";
import type { Schemas } from "../../types";

const MOST = 300;

export function ColumnChooser(props: {
  chosen: readonly string[];
  names: Schemas["RunNames"] | undefined;
  onChoose: (columns: string[]) => void;
}) {
  const { chosen, names } = props;
  const [isOpen, setOpen] = useState(false);
  const [search, setSearch] = useState("");
  const known = [
    ...(names?.metrics ?? []).map((name) => `metrics.${name}`),
    ...(names?.params ?? []).map((name) => `params.${name}`),
    ...(names?.tags ?? []).map((name) => `tags.${name}`),
  ];
  const all = [...chosen, ...known.filter((column) => !chosen.includes(column))];
  const wanted = search.trim().toLowerCase();
  const found = all.filter((column) => column.toLowerCase().includes(wanted));
  const typed = search.trim();
  const isNew = /^(metrics|params|tags)\../.test(typed) && !all.includes(typed);
  const toggle = (column: string, on: boolean) =>
    props.onChoose(on ? [...chosen, column] : chosen.filter((each) => each !== column));
  return (
    <>
      <button type="button" className="nemo-button" onClick={() => setOpen(true)}>
        {t("experiments.columns")}
        {chosen.length > 0 && ` (${chosen.length})`}
      </button>
      <Dialog title={t("experiments.columns")} open={isOpen} onClose={() => setOpen(false)}>
        <p className="muted">{t("experiments.columnsText")}</p>
        <input
          className="nemo-field"
          type="search"
          autoFocus
          aria-label={t("search")}
          placeholder={t("search")}
          value={search}
          onChange={(event) => setSearch(event.target.value)}
        />
        <ul className="nemo-choices">
          {found.slice(0, MOST).map((column) => (
            <li key={column}>
              <label>
                <input
                  type="checkbox"
                  checked={chosen.includes(column)}
                  onChange={(event) => toggle(column, event.target.checked)}
                />{" "}
                {column}
              </label>
            </li>
          ))}
        </ul>
        {!found.length && !isNew && <p className="muted">{t("experiments.noNames")}</p>}
        {isNew && (
          <button
            type="button"
            className="nemo-button"
            onClick={() => {
              toggle(typed, true);
              setSearch("");
            }}
          >
            {t("experiments.addColumn", { name: typed })}
          </button>
        )}
      </Dialog>
    </>
  );
}
