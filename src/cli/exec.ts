import type { Command } from 'commander';

export function addExec(program: Command): void {
  program
    .command('exec')
    .description('run a program with the servers that Annals uses, embedded ones included')
    .argument('<program>', 'such as psql, pg_dump, redis-cli')
    .argument('[arguments...]', 'handed over as they are')
    .passThroughOptions()
    .allowUnknownOption()
    .addHelpText(
      'after',
      `
Embedded servers run while somebody uses them, and so at least until the program ends. It finds
DATABASE_URL, the variables of PostgreSQL's own programs (PGHOST, PGPASSWORD, …) and, where the
queues are on Redis, REDIS_URL in its environment. The exit code is the program's.

Examples:
  $ annals exec psql                           a prompt on the database
  $ annals exec pg_dump --file annals.sql
  $ annals exec printenv DATABASE_URL          its address, for as long as a worker runs, say`,
    )
    .action(async (name: string, args: string[]) => {
      const { exec } = await import('./actions/exec.ts');
      await exec(name, args);
    });
}
