// Two texts line by line; loaded only when texts are compared.
import { structuredPatch } from "diff";
import { t } from "../strings";
import { Lines, type Line } from "./rows";

export default function TextDiff({ old, now, label }: { old: string; now: string; label: string }) {
  const patch = structuredPatch("", "", old, now, undefined, undefined, { context: 3, timeout: 2000 });
  if (!patch) return <p className="muted">{t("parts.lines.many")}</p>;
  if (!patch.hunks.length) return <p className="muted">{t("parts.lines.same")}</p>;
  const lines = patch.hunks.flatMap((hunk): Line[] => [
    { kind: "head", text: `@@ -${hunk.oldStart},${hunk.oldLines} +${hunk.newStart},${hunk.newLines} @@` },
    ...hunk.lines.map((text): Line => ({ text, kind: text[0] === "+" ? "added" : text[0] === "-" ? "removed" : "" })),
  ]);
  return <Lines lines={lines} label={label} />;
}
