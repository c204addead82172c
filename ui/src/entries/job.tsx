import { page } from "../entry";
import { Job } from "../pages/Job";

page(Job);
