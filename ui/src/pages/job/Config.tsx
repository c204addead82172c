// The config as a tree: values that were set, defaults in grey, and what has changed since an earlier run.
import { useMemo, useState } from "react";
import { useAddress } from "../../address";
import { timeText } from "../../host";
import { Await, CopyButton } from "../../parts/basics";
import { Tree, type TreeRow } from "../../parts/tree";
import { useApi } from "../../query";
import { t, tn, type Text } from "../../strings";
import type { Schemas } from "../../types";
import type { SectionProps } from "./sections";

type Change = Schemas["ConfigChange"];

interface Row extends TreeRow {
  key: string;
  value: string;
  by: number;
  sameAs: string;
  change: Change | undefined;
}

const FEW = 300; // Rows of a config that is open from the beginning.
const AT_ONCE = 500; // Rows that a search opens.

export function Config({ place }: SectionProps) {
  const [search, setAddress] = useAddress();
  const config = useApi<Schemas["ConfigTree"]>("job/config", place);
  const since = search.get("since") === "good" ? "good" : "last";
  const changes = useApi<Schemas["ConfigChanges"]>("job/config/changes", { ...place, since });
  const set = (name: string, on: boolean) => setAddress({ [name]: on ? 1 : null });
  return (
    <>
      <div className="nemo-bar">
        <input
          type="search"
          className="nemo-field"
          aria-label={t("config.search")}
          placeholder={t("config.search")}
          value={search.get("find") ?? ""}
          onChange={(event) => setAddress({ find: event.target.value })}
        />
        <label className="nemo-bar">
          <input type="checkbox" checked={search.has("changed")} onChange={(event) => set("changed", event.target.checked)} />
          {t("config.onlyChanges")}
        </label>
        <label className="nemo-bar">
          <input type="checkbox" checked={search.has("set")} onChange={(event) => set("set", event.target.checked)} />
          {t("config.onlySet")}
        </label>
        <label className="nemo-bar">
          <span className="muted">{t("config.since")}</span>
          <select className="nemo-field" value={since} onChange={(event) => setAddress({ since: event.target.value === "good" ? "good" : null })}>
            <option value="last">{t("config.since.last")}</option>
            <option value="good">{t("config.since.good")}</option>
          </select>
        </label>
      </div>
      {changes.error ? (
        <p className="muted" role="alert">{changes.error.message}</p>
      ) : (
        changes.data && <Since changes={changes.data} />
      )}
      <Await of={config}>{(tree) => <ConfigTree tree={tree} changes={changes.data?.changes ?? []} />}</Await>
    </>
  );
}

function Since({ changes }: { changes: Schemas["ConfigChanges"] }) {
  if (changes.tracker.away) return null; // The head of the page says so.
  if (!changes.mlflow_run_id) return <p className="muted">{t("config.since.none")}</p>;
  const when = timeText(changes.started);
  const count = changes.changes.length + (changes.more ?? 0);
  return (
    <p className="muted">
      {count ? tn("config.changes", count, { when }) : t("config.changes.not", { when })} <code>{changes.key}</code>
    </p>
  );
}

function ConfigTree({ tree, changes }: { tree: Schemas["ConfigTree"]; changes: readonly Change[] }) {
  const [search, setAddress] = useAddress();
  const [toggled, setToggled] = useState<ReadonlySet<number>>(new Set());
  const wanted = (search.get("find") ?? "").toLowerCase();
  const [onlyChanged, onlySet] = [search.has("changed"), search.has("set")];
  const selected = search.get("path");
  const removed = useMemo(() => changes.filter(({ kind }) => kind === "removed"), [changes]);

  const rows = useMemo(() => {
    const count = tree.paths.length;
    const byPath = new Map(changes.filter(({ kind }) => kind !== "removed").map((change) => [change.path, change]));
    const filters = wanted !== "" || onlyChanged || onlySet;
    // Backwards: a row stays for itself or for one below it.
    const stays = new Uint8Array(count);
    const below: number[] = [];
    for (let index = count - 1; index >= 0; index--) {
      const depth = tree.depths[index] ?? 0;
      const own =
        (!wanted || `${tree.paths[index]} ${tree.values[index]}`.toLowerCase().includes(wanted)) &&
        (!onlyChanged || byPath.has(tree.paths[index] ?? "")) &&
        (!onlySet || (tree.set_by[index] ?? 0) !== -1);
      stays[index] = !filters || own || (below[depth + 1] ?? 0) ? 1 : 0;
      if (stays[index]) below[depth] = 1;
      below[depth + 1] = 0;
    }
    const openFirst = count <= FEW || filters;
    const found: Row[] = [];
    let hidden = Infinity; // Below a closed row of this depth.
    for (let index = 0; index < count; index++) {
      const depth = tree.depths[index] ?? 0;
      if (depth > hidden) continue;
      hidden = Infinity;
      if (!stays[index]) continue;
      const hasChildren = (tree.depths[index + 1] ?? -1) > depth;
      const startsOpen = filters ? found.length < AT_ONCE : openFirst || depth < 1;
      const open = hasChildren ? startsOpen !== toggled.has(index) : null;
      if (open === false) hidden = depth;
      const change = byPath.get(tree.paths[index] ?? "");
      found.push({
        id: String(index),
        depth,
        open,
        key: tree.keys[index] ?? "",
        value: tree.values[index] ?? "",
        by: tree.set_by[index] ?? -2,
        sameAs: tree.same_as[index] ?? "",
        change,
        className: change ? (change.kind === "added" ? "nemo-added" : "nemo-changed") : "",
      });
    }
    return found;
  }, [tree, changes, wanted, onlyChanged, onlySet, toggled]);

  const at = selected === null ? -1 : tree.paths.indexOf(selected);
  const change = changes.find(({ path, kind }) => path === selected && kind !== "removed");
  const toggle = (row: Row) =>
    setToggled((before) => {
      const after = new Set(before);
      if (!after.delete(Number(row.id))) after.add(Number(row.id));
      return after;
    });
  return (
    <>
      {!tree.is_whole && <p className="nemo-note">{t("config.part")}</p>}
      {tree.set_by.includes(-2) && tree.is_whole && <p className="muted">{t("config.noOrigins")}</p>}
      {rows.length === 0 ? (
        <p className="muted">{t(tree.paths.length ? "config.noneSo" : "config.none")}</p>
      ) : (
        <Tree
          label={t("job.section.config")}
          rows={rows}
          selected={at < 0 ? "" : String(at)}
          onSelect={(id) => setAddress({ path: tree.paths[Number(id)] || null })}
          onToggle={toggle}
          render={(row) => <RowText row={row} />}
        />
      )}
      {(tree.more ?? 0) > 0 && <p className="muted">{tn("config.more", tree.more ?? 0)}</p>}
      {removed.length > 0 && (
        <details>
          <summary>{tn("config.removed", removed.length)}</summary>
          <ul className="mono">
            {removed.map(({ path, old }) => (
              <li key={path} className="nemo-removed">
                {path}: <del>{old}</del>
              </li>
            ))}
          </ul>
        </details>
      )}
      {at >= 0 && (
        <div className="nemo-card" aria-live="polite">
          <div className="nemo-bar">
            <code style={{ overflowWrap: "anywhere" }}>{selected}</code>
            <CopyButton text={selected ?? ""} label={t("config.copyPath")} />
            {tree.is_leaf[at] && <CopyButton text={tree.values[at] ?? ""} label={t("config.copyValue")} />}
          </div>
          {tree.is_leaf[at] && <pre style={{ maxHeight: 160, whiteSpace: "pre-wrap" }}>{tree.values[at]}</pre>}
          {change && (
            <p>
              {t(`config.kind.${change.kind}` as Text)}
              {change.old && <>: <del className="mono">{change.old}</del></>}
            </p>
          )}
          <p className="muted">{origin(tree, at)}</p>
        </div>
      )}
    </>
  );
}

function RowText({ row }: { row: Row }) {
  const isDefault = row.by === -1;
  return (
    <span className={isDefault ? "default" : undefined} title={isDefault ? t("config.default") : undefined}>
      {row.change && <span className="mark">{row.change.kind === "added" ? "+ " : "~ "}</span>}
      {row.key && `${row.key}${row.open === null ? " = " : ": "}`}
      {row.change?.old && row.change.kind !== "added" && <><del>{row.change.old}</del> → </>}
      {row.value}
      {row.sameAs && ` = ${row.sameAs}`}
    </span>
  );
}

function origin(tree: Schemas["ConfigTree"], at: number): string {
  const by = tree.set_by[at] ?? -2;
  if (by === -1) return t("config.default");
  return by >= 0 ? t("config.setBy", { who: tree.who[by] ?? "" }) : t("config.setBy.unknown");
}
