// What can be done with a job: stop it, start its DAG again with other values, and command lines for the rest.
import { useState } from "react";
import { Link } from "react-router-dom";
import { ApiError, post } from "../../host";
import { Await, CopyButton, Section } from "../../parts/basics";
import { Confirm, Dialog } from "../../parts/dialog";
import { useApi } from "../../query";
import { t, type Text } from "../../strings";
import type { Schemas } from "../../types";
import { Said, useAction } from "./Notes";
import { Styles } from "./Styles";
import type { JobQuery, SectionProps } from "./sections";

export function Actions(props: SectionProps) {
  return (
    <>
      <Styles />
      {props.job.place.dag_id && <Stop {...props} />}
      {props.job.place.dag_id && <Start {...props} path="job/again" words="again" />}
      <Start {...props} path="job/reproduce" words="reproduce" />
      <Commands place={props.place} />
    </>
  );
}

function Stop({ job, reload }: SectionProps) {
  const [isAsked, setAsked] = useState(false);
  const [said, setSaid] = useState<{ text: string; isWrong: boolean }>();
  const stop = () =>
    void post<Schemas["JobsDone"]>("runs/stop", { places: [job.place] })
      .then(({ jobs: [one] }) => {
        setSaid({ text: one?.message ?? "", isWrong: !one?.done });
        reload();
      })
      .catch((error: unknown) => setSaid({ text: error instanceof ApiError ? error.message : String(error), isWrong: true }));
  const canStop = job.active && job.newest;
  return (
    <Section
      title={t("parts.stop")}
      aside={
        <button type="button" className="nemo-button danger" disabled={!canStop} onClick={() => setAsked(true)}>
          {t("parts.stop.go")}
        </button>
      }
    >
      <p className="muted">{t(canStop ? "parts.stop.what" : "parts.stop.ended")}</p>
      <Said said={said} />
      <Confirm
        title={t("parts.stop.go")}
        text={t("parts.stop.ask", { task: job.place.task_id ?? "", key: job.key })}
        action={t("parts.stop.go")}
        open={isAsked}
        onClose={() => setAsked(false)}
        onConfirm={stop}
      />
    </Section>
  );
}

type Path = "job/again" | "job/reproduce";

/** A DAG that can be started for the job: its own, or the one that reproduces runs. */
function Start({ place, path, words }: SectionProps & { path: Path; words: "again" | "reproduce" }) {
  const [isOpen, setOpen] = useState(false);
  const form = useApi<Schemas["AgainForm"]>(path, place);
  const known = form.data;
  return (
    <Section
      title={t(`parts.${words}`)}
      aside={
        <button type="button" className="nemo-button" disabled={!known?.may_trigger} onClick={() => setOpen(true)}>
          {t(`parts.${words}.open`)}
        </button>
      }
    >
      <p className="muted">{t(`parts.${words}.what`, { dag: known?.dag_id ?? "" })}</p>
      {known && !known.may_trigger && <p className="muted">{known.why_not || t("parts.again.right")}</p>}
      <Dialog title={t(`parts.${words}`)} open={isOpen} onClose={() => setOpen(false)} wide>
        <Await of={form}>{(found) => <Form place={place} path={path} form={found} />}</Await>
      </Dialog>
    </Section>
  );
}

interface Schema {
  type?: string | string[];
  enum?: unknown[];
  format?: string;
}

type Kind = "boolean" | "number" | "text" | "choice" | "json";

function kindOf(field: Schemas["ParamField"]): { kind: Kind; canBeEmpty: boolean; choices: unknown[] } {
  const schema = JSON.parse(field.json_schema) as Schema;
  const types = [schema.type ?? []].flat();
  const canBeEmpty = types.includes("null") || (!types.length && !field.default);
  const real = types.filter((type) => type !== "null");
  const value: unknown = field.default ? JSON.parse(field.default) : undefined;
  const one = real.length === 1 ? real[0] : real.length ? "" : Array.isArray(value) ? "array" : typeof value;
  const choices = schema.enum ?? [];
  if (choices.length) return { kind: "choice", canBeEmpty, choices };
  if (one === "boolean" || one === "string" || one === "number" || one === "integer") {
    return { kind: one === "string" ? "text" : one === "boolean" ? "boolean" : "number", canBeEmpty, choices };
  }
  return { kind: "json", canBeEmpty, choices };
}

/** The text of a field for a value in JSON. */
function textOf(kind: Kind, json: string): string {
  if (kind === "text" && json) return String(JSON.parse(json));
  if (kind === "json" && json) return JSON.stringify(JSON.parse(json), null, 2);
  return json;
}

class Wrong extends Error {}

/** The value of a field's text. */
function valueOf(kind: Kind, text: string, name: string): unknown {
  if (kind === "text") return text;
  try {
    const value: unknown = JSON.parse(text);
    if (kind !== "number" || typeof value === "number") return value;
  } catch {
    // Said below, as for another kind of value.
  }
  throw new Wrong(t("parts.again.bad", { name, what: t(kind === "number" ? "parts.again.number" : "parts.again.json") }));
}

function Form({ place, path, form }: { place: JobQuery; path: Path; form: Schemas["AgainForm"] }) {
  const fields = form.fields.map((field) => ({ ...field, ...kindOf(field) }));
  const [texts, setTexts] = useState(() => Object.fromEntries(fields.map((field) => [field.name, textOf(field.kind, field.value)])));
  const [others, setOthers] = useState(form.other_conf ?? "");
  const [note, setNote] = useState("");
  const [wrong, setWrong] = useState("");
  const [started, setStarted] = useState("");
  const { act, said, isBusy } = useAction<Schemas["NewRun"]>(path, place, (answer) => setStarted(answer.url ?? ""));
  const submit = () => {
    setWrong("");
    setStarted("");
    try {
      const conf: Record<string, unknown> = {};
      if (others.trim()) {
        const more = valueOf("json", others, t("parts.again.other"));
        if (typeof more !== "object" || more === null || Array.isArray(more)) {
          throw new Wrong(t("parts.again.bad", { name: t("parts.again.other"), what: t("parts.again.json") }));
        }
        Object.assign(conf, more);
      }
      for (const field of fields) {
        const text = texts[field.name] ?? "";
        if (text === "" && field.kind !== "text") {
          if (field.canBeEmpty || !field.default) {
            if (field.canBeEmpty) conf[field.name] = null;
            continue;
          }
          throw new Wrong(t("parts.again.bad", { name: field.title, what: t(field.kind === "number" ? "parts.again.number" : "parts.again.json") }));
        }
        conf[field.name] = text === "" && field.canBeEmpty ? null : valueOf(field.kind, text, field.title);
      }
      act({ conf, note });
    } catch (error) {
      if (!(error instanceof Wrong)) throw error;
      setWrong(error.message);
    }
  };
  const set = (name: string, text: string) => setTexts({ ...texts, [name]: text });
  return (
    <form
      className="nemo-form"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      {form.is_paused && <p className="nemo-note">{t("parts.again.paused")}</p>}
      {!fields.length && <p className="muted">{t("parts.again.none")}</p>}
      {fields.map((field) => {
        const text = texts[field.name] ?? "";
        const defaultText = textOf(field.kind, field.default);
        return (
          <div key={field.name}>
            <label>
              <span>{[field.section, field.title].filter(Boolean).join(" · ")}</span>
              <Input field={field} text={text} set={(to) => set(field.name, to)} />
            </label>
            {field.description && <small className="muted">{field.description} </small>}
            {text !== defaultText && (
              <button type="button" className="nemo-button" title={defaultText} onClick={() => set(field.name, defaultText)}>
                {t("parts.again.reset")}
              </button>
            )}
          </div>
        );
      })}
      {form.other_conf && (
        <label>
          <span>{t("parts.again.other")}</span>
          <textarea className="nemo-field" rows={4} value={others} onChange={(event) => setOthers(event.target.value)} />
        </label>
      )}
      <label>
        <span>{t("parts.again.note")}</span>
        <input className="nemo-field" value={note} maxLength={1000} onChange={(event) => setNote(event.target.value)} />
      </label>
      {wrong && <p className="nemo-problem" role="alert">{wrong}</p>}
      <Said said={said} />
      <div className="nemo-bar">
        <button type="submit" className="nemo-button" disabled={isBusy}>
          {t("parts.again.go")}
        </button>
        {started && <Link to={`/${started}`}>{t("parts.again.open.run")}</Link>}
      </div>
    </form>
  );
}

function Input(props: { field: Schemas["ParamField"] & { kind: Kind; canBeEmpty: boolean; choices: unknown[] }; text: string; set: (text: string) => void }) {
  const { field, text, set } = props;
  const choices = field.kind === "boolean" ? [true, false] : field.choices;
  if (field.kind === "boolean" || field.kind === "choice") {
    return (
      <select className="nemo-field" value={text} onChange={(event) => set(event.target.value)}>
        {(field.canBeEmpty || text === "") && <option value="">{t("parts.again.empty")}</option>}
        {choices.map((choice) => (
          <option key={JSON.stringify(choice)} value={JSON.stringify(choice)}>
            {String(choice)}
          </option>
        ))}
      </select>
    );
  }
  if (field.kind === "json") {
    return <textarea className="nemo-field" rows={3} value={text} onChange={(event) => set(event.target.value)} />;
  }
  return <input className="nemo-field" inputMode={field.kind === "number" ? "decimal" : "text"} value={text} onChange={(event) => set(event.target.value)} />;
}

function Commands({ place }: { place: JobQuery }) {
  const answer = useApi<Schemas["Commands"]>("job/commands", place);
  return (
    <Section title={t("parts.commands")}>
      <Await of={answer}>
        {({ commands }) =>
          commands.length ? (
            <>
              {commands.map(({ name, text }) => (
                <div key={name} className="nemo-command">
                  <p>{t(`parts.command.${name}` as Text)}</p>
                  <code>{text}</code>
                  <CopyButton text={text} />
                </div>
              ))}
            </>
          ) : (
            <p className="muted">{t("parts.commands.none")}</p>
          )
        }
      </Await>
    </Section>
  );
}
