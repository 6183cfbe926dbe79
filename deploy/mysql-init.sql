-- Run once by the mysql container: the user that Driftless reads with, and the tutorial's table.
CREATE USER driftless@'%' IDENTIFIED BY 'driftless';
GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO driftless@'%';

CREATE DATABASE IF NOT EXISTS db;
CREATE TABLE IF NOT EXISTS db.test_table (id INT PRIMARY KEY, t1 INT, t2 TEXT);
INSERT INTO db.test_table (id, t1, t2) VALUES (1, 11, 'aaa'), (2, 22, 'bbb'), (3, 33, 'ccc');
