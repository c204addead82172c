// Lines of a patch or of a report on differences, coloured by what they begin with; the first ones, and more on demand.
import { useState } from "react";
import { t } from "../strings";

const AT_ONCE = 1000;

export interface Line {
  kind: "" | "added" | "removed" | "changed" | "head";
  text: string;
}

export function Lines({ lines, label }: { lines: readonly Line[]; label: string }) {
  const [shown, setShown] = useState(AT_ONCE);
  return (
    <>
      <div className="nemo-lines" role="region" aria-label={label} tabIndex={0}>
        {lines.slice(0, shown).map((line, index) => (
          <div key={index} className={line.kind && (line.kind === "head" ? "nemo-line-head" : `nemo-${line.kind}`)}>
            {line.text || " "}
          </div>
        ))}
      </div>
      {lines.length > shown && (
        <button type="button" className="nemo-button" onClick={() => setShown(shown + 5 * AT_ONCE)}>
          {t("show.more")}
        </button>
      )}
    </>
  );
}

export function patchLines(patch: string): Line[] {
  return patch.split("\n").map((text) => ({ text, kind: kindOfPatch(text) }));
}

function kindOfPatch(text: string): Line["kind"] {
  if (/^(diff |index |@@|\+\+\+|---|new file|deleted file|rename |similarity )/.test(text)) return "head";
  return text.startsWith("+") ? "added" : text.startsWith("-") ? "removed" : "";
}

/** Lines of the server's reports: + only here, - only there, ~ another value. */
export function reportLines(lines: readonly string[]): Line[] {
  return lines.map((text) => ({ text, kind: ({ "+": "added", "-": "removed", "~": "changed" } as const)[text[0] ?? ""] ?? "" }));
}
