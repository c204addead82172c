// Names for the answers of the API, whose types are generated.
import type { components } from "./api.gen";

export type Schemas = components["schemas"];
