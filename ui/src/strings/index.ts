// All texts of the pages, by name: one table for each page, one language. Another language is a table of the same names.
import { language } from "../host";
import { backEnds } from "./backEnds";
import { common } from "./common";
import { compare } from "./compare";
import { dagRun } from "./dagRun";
import { experiments } from "./experiments";
import { job } from "./job";
import { jobParts } from "./jobParts";
import { widget } from "./widget";

const ENGLISH = { ...common, ...backEnds, ...compare, ...dagRun, ...experiments, ...job, ...jobParts, ...widget };

export type Text = keyof typeof ENGLISH;

const LANGUAGES: Record<string, Partial<Record<Text, string>>> = { en: ENGLISH };

/** Returns a text in the user's language, or else in English; {name} in it is replaced. */
export function t(name: Text, values: Record<string, string | number> = {}): string {
  const tag = language();
  const text: string = LANGUAGES[tag]?.[name] ?? LANGUAGES[tag.split("-")[0] ?? ""]?.[name] ?? ENGLISH[name];
  return text.replace(/\{(\w+)\}/g, (whole, value: string) => String(values[value] ?? whole));
}

/** Returns the text for one or for several: the names are the same with ".one" and ".more", which has {n}. */
export function tn(name: PluralText, n: number, values: Record<string, string | number> = {}): string {
  return t(`${name}.${n === 1 ? "one" : "more"}` as Text, { n, ...values });
}

type PluralText = Text extends infer Name ? (Name extends `${infer Begin}.one` ? Begin : never) : never;
