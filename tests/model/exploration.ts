/** One exploration of the list, and how tests and `npm run explore` run it. */
import { explore, type Report, type Scenario } from '../support/explorer.js'

export interface Exploration {
  /** Which processes there are and what they do: the file of that name. */
  readonly scene: string
  /** What holds in every state, with the invariants. */
  readonly promise: string
  readonly name: string
  /** Not part of the tests, because it takes too long. */
  readonly isLong?: boolean
  readonly scenario: (name: string) => Scenario | Promise<Scenario>
}

export const fullName = ({ scene, name }: Exploration): string => `${scene}: ${name}`

export async function run(exploration: Exploration): Promise<Report> {
  return explore(await exploration.scenario(fullName(exploration)))
}

/** What a failure leaves to be looked at: each step, and how to do them again. */
export function tellFailure(exploration: Exploration, report: Report): string[] {
  const { failure } = report
  if (failure === undefined) {
    if (!report.complete) return ['the exploration was cut']
    return report.ends > 0 ? [] : ['nobody ever comes to rest, so what holds there was not looked at']
  }
  const { scene, name } = exploration
  const which = scene === 'mutant' ? `--mutant '${name}'` : `--scene '${fullName(exploration)}'`
  const command = `npm run explore -- ${which} --replay '${failure.schedule}'`
  return [`${failure.invariant}: ${failure.message}`, ...failure.trace.map((step) => `  ${step}`), command]
}
