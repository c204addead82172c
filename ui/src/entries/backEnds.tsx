import { page } from "../entry";
import { BackEnds } from "../pages/BackEnds";

page(BackEnds);
