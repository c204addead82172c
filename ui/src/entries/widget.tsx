import { page } from "../entry";
import { Widget } from "../pages/Widget";

page(Widget);
