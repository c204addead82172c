import { page } from "../entry";
import { Experiments } from "../pages/Experiments";

page(Experiments);
