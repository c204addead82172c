// What narrows the list: fields for what each job has, and chips for tags, config values and metrics.
import { useState } from "react";
import { useAddress } from "../../address";
import { t, type Text } from "../../strings";
import type { Schemas } from "../../types";
import { Committed } from "../Experiments";
import { NARROWING, SPANS, type FilterList, type Shown } from "./state";

const STATES = ["running", "succeeded", "failed", "cancelled", "lost"] as const;
const OPERATORS = ["<", "<=", ">", ">=", "=", "!="];

export function Filters({ shown, names }: { shown: Shown; names: Schemas["RunNames"] | undefined }) {
  const [address, setAddress] = useAddress();
  const chips = (["tag", "config", "metric"] as const).flatMap((kind) =>
    address.getAll(kind).map((text) => [kind, text] as const),
  );
  const field = (name: string, label: string, known: readonly string[] | undefined) => (
    <>
      <Committed
        label={label}
        value={address.get(name) ?? ""}
        list={`nemo-${name}`}
        placeholder={t("experiments.any")}
        onCommit={(value) => setAddress({ [name]: value })}
      />
      <datalist id={`nemo-${name}`}>
        {known?.map((each) => <option key={each} value={each} />)}
      </datalist>
    </>
  );
  return (
    <section className="nemo-filters" aria-label={t("experiments.filters")}>
      <div className="nemo-bar">
        {field("dag_id", t("column.dag"), names?.dags)}
        <label className="nemo-label">
          {t("column.state")}
          <select
            className="nemo-field"
            value={address.get("state") ?? ""}
            onChange={(event) => setAddress({ state: event.target.value })}
          >
            <option value="">{t("experiments.any")}</option>
            {STATES.map((state) => (
              <option key={state} value={state}>
                {t(`state.${state}`)}
              </option>
            ))}
          </select>
        </label>
        {field("back_end", t("column.backEnd"), names?.back_ends)}
        {field("user", t("column.user"), names?.users)}
        <When />
        <Add names={names} />
        {shown.isNarrowed && (
          <button
            type="button"
            className="nemo-button"
            onClick={() => setAddress(Object.fromEntries(NARROWING.map((name) => [name, null])))}
          >
            {t("experiments.clearFilters")}
          </button>
        )}
      </div>
      {chips.length > 0 && (
        <div className="nemo-bar">
          {chips.map(([kind, text]) => (
            <span key={`${kind} ${text}`} className="nemo-chip">
              <span className="muted">{t(`experiments.${kind}`)}</span> {text}
              <button
                type="button"
                aria-label={t("experiments.remove", { what: text })}
                onClick={() => setAddress({ [kind]: address.getAll(kind).filter((each) => each !== text) })}
              >
                ✕
              </button>
            </span>
          ))}
        </div>
      )}
    </section>
  );
}

function When() {
  const [address, setAddress] = useAddress();
  const [since, until] = [address.get("since") ?? "", address.get("until") ?? ""];
  const [isOpen, setOpen] = useState(false);
  const isBetween = isOpen || until !== "" || (since !== "" && !(since in SPANS));
  return (
    <>
      <label className="nemo-label">
        {t("experiments.started")}
        <select
          className="nemo-field"
          value={isBetween ? "between" : since}
          onChange={(event) => {
            setOpen(event.target.value === "between");
            if (event.target.value !== "between") setAddress({ since: event.target.value, until: null });
          }}
        >
          <option value="">{t("experiments.anyTime")}</option>
          {Object.keys(SPANS).map((span) => (
            <option key={span} value={span}>
              {t(`experiments.${span}` as Text)}
            </option>
          ))}
          <option value="between">{t("experiments.between")}</option>
        </select>
      </label>
      {isBetween && (
        <>
          <Moment label={t("experiments.from")} value={since} onChange={(value) => setAddress({ since: value })} />
          <Moment label={t("experiments.to")} value={until} onChange={(value) => setAddress({ until: value })} />
        </>
      )}
    </>
  );
}

/** A moment in the browser's time zone; in the address it is in seconds since the epoch. */
function Moment(props: { label: string; value: string; onChange: (value: string) => void }) {
  const seconds = Number(props.value);
  const local = (at: number) => new Date(at * 1000 - new Date(at * 1000).getTimezoneOffset() * 60_000);
  const text = props.value && Number.isFinite(seconds) ? local(seconds).toISOString().slice(0, 16) : "";
  return (
    <label className="nemo-label">
      {props.label}
      <input
        type="datetime-local"
        className="nemo-field"
        value={text}
        onChange={(event) => {
          const at = new Date(event.target.value).getTime();
          props.onChange(Number.isFinite(at) ? String(at / 1000) : "");
        }}
      />
    </label>
  );
}

function Add({ names }: { names: Schemas["RunNames"] | undefined }) {
  const [address, setAddress] = useAddress();
  const [isOpen, setOpen] = useState(false);
  const [kind, setKind] = useState<FilterList>("metric");
  const [name, setName] = useState("");
  const [operator, setOperator] = useState("<");
  const [value, setValue] = useState("");
  if (!isOpen) {
    return (
      <button type="button" className="nemo-button" onClick={() => setOpen(true)}>
        + {t("experiments.more")}
      </button>
    );
  }
  const known = { metric: names?.metrics, config: names?.params, tag: names?.tags }[kind];
  const isWhole = name.trim() !== "" && value.trim() !== "" && (kind !== "metric" || Number.isFinite(Number(value)));
  const add = () => {
    const text = `${name.trim()}${kind === "metric" ? operator : "="}${value.trim()}`;
    setAddress({ [kind]: [...new Set([...address.getAll(kind), text])] });
    setName("");
    setValue("");
    setOpen(false);
  };
  return (
    <form
      className="nemo-bar nemo-add"
      onSubmit={(event) => {
        event.preventDefault();
        if (isWhole) add();
      }}
    >
      <select
        className="nemo-field"
        aria-label={t("experiments.kind")}
        value={kind}
        onChange={(event) => setKind(event.target.value as FilterList)}
      >
        {(["metric", "config", "tag"] as const).map((each) => (
          <option key={each} value={each}>
            {t(`experiments.${each}`)}
          </option>
        ))}
      </select>
      <input
        className="nemo-field"
        autoFocus
        aria-label={t("experiments.name")}
        placeholder={t("experiments.name")}
        list="nemo-add"
        value={name}
        onChange={(event) => setName(event.target.value)}
      />
      <datalist id="nemo-add">
        {known?.map((each) => <option key={each} value={each} />)}
      </datalist>
      {kind === "metric" ? (
        <select
          className="nemo-field"
          aria-label={t("experiments.compare")}
          value={operator}
          onChange={(event) => setOperator(event.target.value)}
        >
          {OPERATORS.map((each) => (
            <option key={each}>{each}</option>
          ))}
        </select>
      ) : (
        "="
      )}
      <input
        className="nemo-field nemo-short"
        aria-label={t("experiments.value")}
        placeholder={t("experiments.value")}
        inputMode={kind === "metric" ? "decimal" : undefined}
        value={value}
        onChange={(event) => setValue(event.target.value)}
      />
      <button type="submit" className="nemo-button" disabled={!isWhole}>
        {t("experiments.add")}
      </button>
      <button type="button" className="nemo-button" onClick={() => setOpen(false)}>
        {t("cancel")}
      </button>
    </form>
  );
}
